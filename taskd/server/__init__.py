"""The listening process: sockets, HTTP and WebSocket under taskd's limits, start and stop."""
