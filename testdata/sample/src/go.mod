module cacheserver

go 1.24
