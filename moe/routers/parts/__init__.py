"""What routers are put together from."""
