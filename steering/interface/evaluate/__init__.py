"""The Evaluate tab: what a vector does to what the model writes, against baselines, and every text behind it."""
