"""Pools run opaque work: in child processes, threads, greenlets, an asyncio loop, or in place."""
