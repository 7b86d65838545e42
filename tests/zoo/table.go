package zoo

import "slices"

// Table lists the programs of the zoo.
var Table = slices.Concat(scripts, servers)
