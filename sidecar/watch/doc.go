// Package watch is a watch that outlives the link. Its client reads one stream; where the events
// come from changes underneath, in phases:
//
//	            ┌────────────────────── the link breaks ─────────────────────┐
//	            ▼                                                             │
//	replaying ─▶ waiting ── the link is back ─▶ streaming ────────────────────┤
//	  │             │  ▲                           │    ▲                     │
//	  │             │  │ the link breaks           │    └─ opened online      │
//	  opened        ▼  │                           ▼                          │
//	  offline     expired ◀── 410: the version is forgotten                   │
//	                │                                                         │
//	                ├──▶ catchingUp: sends the difference ──▶ waiting         │
//	                └──▶ ended: sends 410                                     │
//	                     ended: the server or the client ends the watch ◀─────┘
//
// open.go begins a watch, watch.go is its body, phases.go has the phases, expired.go those after a
// 410, cohort.go the watches that wait at one position.
package watch
