"""Weight decay makes homogeneous networks low-rank, and low-rank networks merge by summing their weights."""

__all__ = ["__version__"]

__version__ = "0.1.0"
