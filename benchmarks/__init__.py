"""Measurements that need more than one command of `segtrain benchmark`; not part of the package."""
