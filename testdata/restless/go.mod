module goref.test/restless

go 1.17
