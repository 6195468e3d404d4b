"""BiPO: bi-directional preference optimization (Cao et al., NeurIPS 2024)."""
