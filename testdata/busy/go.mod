module goref.test/busy

go 1.17
