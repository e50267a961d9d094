"""The edge: HTTP and WebSocket. It parses, calls the core, and answers; it decides nothing."""
