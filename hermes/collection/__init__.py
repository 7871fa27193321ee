"""Files whose names carry the identifier of a live job get into that job's experiment directory.

Notifications make it quick, a final scan of the working directory makes it complete. What is where
on the disk is asked of the disk alone; nothing here starts, ends or knows a process, and no
metadata is written.
"""
