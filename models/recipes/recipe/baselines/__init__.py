"""Published systems on this recipe's backbone and data: BottleFit (arXiv 2201.02693) and Entropic Student (arXiv 2108.11898)."""
