"""Several processes, CPU threads and module proxies: what scoring and generation run on."""
