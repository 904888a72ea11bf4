"""Attack algorithms. They know an oracle and a domain, and nothing of files, reports or risk."""
