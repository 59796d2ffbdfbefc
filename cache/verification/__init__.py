"""Verify and repair caches.  [cache]"""
