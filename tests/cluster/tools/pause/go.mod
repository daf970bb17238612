module healthguard.test/tools/pause

go 1.24
