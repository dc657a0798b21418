//! Through the router, on a real database.
