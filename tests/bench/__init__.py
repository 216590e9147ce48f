"""`make bench`: what caisse does in a second, beside two ordinary services that do less. See docs/performance.md."""
