"""Where money is and whose it is: a small double entry, per currency, that only grows."""
