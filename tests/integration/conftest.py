from __future__ import annotations

from tests.support.fixtures import browser

__all__ = ["browser"]
