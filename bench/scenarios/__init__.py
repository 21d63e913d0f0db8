"""MLPerf's scenarios, scaled down, in process and over HTTP."""
