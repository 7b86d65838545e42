// Package report tells the cloud, once the link is back, what the site has been through: by Events
// about the pod, and by a condition of the pod. It is off unless the settings ask for it.
//
//	outage.Keeper ──Outage──▶ book ──facts──▶ Reporter ──▶ API server   with the pod's own token
//	cache ──────────Note────▶
//
// book is pure: it says what is to be told of a sequence of outages, and when. Reports are few and small:
// one batch in five minutes at most, then in an hour, and 1 KB for each change of the link.
//
// Which pod it is, the pod's token says. So an API server's policy can compare the same claims with the
// pod that is patched.
package report
