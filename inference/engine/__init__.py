"""What every loop shares: compiled programs, chunks on the cores, threads, memory, fewer dimensions."""
