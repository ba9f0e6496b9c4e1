"""Completion callbacks: the results of detached calls, posted to the addresses that the calls named."""
