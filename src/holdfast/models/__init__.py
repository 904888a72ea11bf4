"""Adapters that make a model of any framework a Predictor: torch, scikit-learn, boosting, onnx, remote, python."""
