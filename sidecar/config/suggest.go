package config

import "strings"

// suggest gives `; did you mean "x"?` for the known name nearest to the unknown
// one, or nothing when none is near enough to be meant.
func suggest(unknown string, keys []Key, name func(Key) string) string {
	nearest, best := "", max(2, len(unknown)/3)+1
	for _, k := range keys {
		// "max-size" for "cache.max-size": the end alone was written.
		if end := strings.TrimPrefix(unknown, EnvPrefix); len(end) > 3 && strings.HasSuffix(name(k), end) {
			return `; did you mean "` + name(k) + `"?`
		}
		if n := distance(unknown, name(k)); n < best {
			nearest, best = name(k), n
		}
	}
	if nearest == "" {
		return ""
	}
	return `; did you mean "` + nearest + `"?`
}

// distance is the number of single bytes to insert, delete or replace to make b
// of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
