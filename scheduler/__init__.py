"""Time, and nothing else: scheduled jobs come with the clock (expiry, reconciling, closing). Nothing is here yet."""
