"""Risk as annual loss: quantification from evidence, and the register."""
