"""Means over seeds and their 95% intervals, by Student's t distribution."""

import numpy as np
import xarray as xr

CONFIDENCE = 0.95


def interval(values: xr.DataArray) -> xr.Dataset:
    """Mean over ``seed``, and the interval that holds the mean of the distribution in 95% of such samples.

    A paired comparison is the interval of the differences, seed by seed.

    Args:
        values: Dimension ``seed`` and any others; NaN for seeds that are left out.

    Returns:
        ``mean``, ``low`` and ``high``; ``n``, the number of seeds; ``p``, the two-sided p-value of a mean of 0. NaN
        where the number of seeds is too small: 1 has no interval.
    """
    from scipy import stats  # it takes half a second, which other commands are spared

    n = values.notnull().sum("seed")
    mean = values.mean("seed")
    freedom = (n - 1).where(n > 1)
    error = np.sqrt(((values - mean) ** 2).sum("seed") / freedom / n)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(mean / error), freedom)
    return xr.Dataset(
        {"mean": mean, "low": mean - half, "high": mean + half, "n": n, "p": (mean.dims, np.asarray(p))}
    )
