package store

/*
#include <stdlib.h>

// Of SQLite, which go-sqlite3 compiles into this program: https://sqlite.org/c3ref/config.html
extern int sqlite3_config(int, ...);
static const int config_memstatus = 9; // SQLITE_CONFIG_MEMSTATUS

// Nobody asks how much memory SQLite takes. To count it takes a lock for each allocation.
static __attribute__((constructor)) void no_statistics(void) { sqlite3_config(config_memstatus, 0); }

#ifdef __GLIBC__
#include <malloc.h>

// Runs before Go starts its threads: an arena that a thread has stays.
static __attribute__((constructor)) void one_arena(void) { mallopt(M_ARENA_MAX, 1); }

static void trim(void) { malloc_trim(0); }
#else
static void trim(void) {}
#endif
*/
import "C"

// trim gives the memory that SQLite has freed back to the node. glibc gives each thread an arena of
// its own unless told otherwise, and keeps what was freed below a block that is still in use. Go
// moves calls of SQLite between threads, and SQLite allocates under one lock, so one arena costs no
// time.
func trim() { C.trim() }
