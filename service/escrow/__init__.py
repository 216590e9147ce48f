"""Delayed payout: money held for a beneficiary until the buyer has what was bought, and paid out to them."""
