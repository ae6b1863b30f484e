"""Stage ``fetch``: put real data and published checkpoints, verified, into the folder that all runs share."""
