"""What a reader may ask of a log: filters, counts, and their spelling in a query."""
