package slot

import (
	"path/filepath"
	"slices"
	"strconv"
)

// Find returns the paths of the slots in a directory that were used: the one that the pod with this
// UID used last, or all of them, the freshest first, if there is none. An empty UID is unknown. It
// takes no lock.
func Find(directory, pod string) (paths []string) {
	all := agesOf(directory)
	slices.SortStableFunc(all, age.compare)
	for _, a := range all {
		path := filepath.Join(directory, strconv.Itoa(a.number))
		if pod != "" && a.Pod == pod {
			return []string{path}
		}
		paths = append(paths, path)
	}
	return paths
}
