"""Stage ``fetch``: real data, verified, into the folder that all runs share."""
