"""The two baselines on this recipe's backbone and data: BottleFit (arXiv 2201.02693), Entropic Student (2108.11898)."""
