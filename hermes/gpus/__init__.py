"""The GPUs of this machine: which there are, who gets which, and what other runs hold.

Never knows of jobs or runs: only of amounts that are asked for and of claims.
"""
