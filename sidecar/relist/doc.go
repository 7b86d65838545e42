// Package relist reads a list again that a program has read before: to record it when the
// recorded one is behind its clients (refresh.go), and to tell a watch's client what it has
// missed when the API server has forgotten its resourceVersion (compare.go). Both read the list
// in pages, by the one loop in pages.go.
package relist
