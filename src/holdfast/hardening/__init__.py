"""Controls that change the model or its answers."""
