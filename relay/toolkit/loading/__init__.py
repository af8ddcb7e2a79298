"""From files and folders to tools, by NAVAI's rules."""
