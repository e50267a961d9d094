"""Read and follow logs: pages, exports, and live."""
