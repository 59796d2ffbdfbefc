"""Raw datasets -> tracks -> features. Plain functions; no Luigi, no training."""
