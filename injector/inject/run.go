package inject

import (
	"regexp"
	"strings"
)

// Pods of one run, such as those of a Job or of a CI system, have names that end in the number or
// the random text of that run. Without it, the next run finds the same cache directory. Two
// workloads whose names differ in nothing else then share a directory, which is harmless: each pod
// has a slot of its own in it, and sees only what its own service account has read.

var (
	// cronJobSuffix is the suffix that the CronJob controller appends to the name of a Job: the
	// scheduled time in minutes since 1970, which has eight digits from 1989 to 2160.
	cronJobSuffix = regexp.MustCompile(`-[0-9]{8}$`)
	// generatedSuffix is the suffix that the API server appends to a generateName: five characters
	// without vowels and without those that look alike (k8s.io/apimachinery/pkg/util/rand).
	generatedSuffix = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{5}$`)
	// timeSuffix is the time of a run, in seconds since 1970 or finer, or as a date: the Spark operator
	// appends nanoseconds to the name of a ScheduledSparkApplication.
	timeSuffix = regexp.MustCompile(`-[0-9]{8,19}$`)
	// sparkRun is what Spark appends to the name of a program before the role of each of its pods.
	// https://spark.apache.org/docs/latest/running-on-kubernetes.html
	sparkRun = regexp.MustCompile(`-[0-9a-f]{16}(-(?:driver|exec)\b)`)
	// uuid is a UUID (RFC 9562) within a name.
	uuid = regexp.MustCompile(`(^|-)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-|$)`)
)

// withoutRun removes from a name what identifies a single run: UUIDs, and parts at the end. The
// result is empty if nothing else is left.
func withoutRun(name string) string {
	name = sparkRun.ReplaceAllString(uuid.ReplaceAllString(name, "-"), "$1")
	parts := strings.Split(strings.Trim(name, "-"), "-")
	for len(parts) > 1 && countsRuns(parts[len(parts)-1]) {
		parts = parts[:len(parts)-1]
	}
	// A first part like postgres15 is the name that a person has given.
	if len(parts) == 1 && strings.Trim(parts[0], digits) == "" {
		return ""
	}
	return strings.TrimRight(strings.Join(parts, "-"), "-.")
}

const digits = "0123456789"

// countsRuns reports whether the last part of a name is the number of a run, or random text: a
// generated suffix, or five characters and more with a digit among them.
func countsRuns(part string) bool {
	return strings.Trim(part, digits) == "" || generatedSuffix.MatchString("-"+part) ||
		len(part) >= 5 && strings.ContainsAny(part, digits)
}
