"""The edge: HTTP and WebSocket. It parses requests, calls the core, and answers; it decides nothing."""
