package config

import "strings"

// suggest returns `; did you mean "x"?` for the known name nearest to the unknown one, or
// nothing when no name is near enough.
func suggest(unknown string, keys []Key, name func(Key) string) string {
	nearest, best := "", max(2, len(unknown)/3)+1
	for _, k := range keys {
		// "max-size" for "cache.max-size": the section is missing.
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

// distance is the Levenshtein distance of a and b in bytes.
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
