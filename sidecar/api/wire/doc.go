// Package wire splits the bodies of Kubernetes API responses into objects while they stream,
// without a scheme and without losing a byte.
//
//	list body ──▶ List ──▶ item, item, item … ──▶ ListMeta (kind, apiVersion, metadata)
//	watch body ─▶ Frames ──▶ frame ──▶ ParseEvent ──▶ type, object
//	object ─────▶ ParseMeta ──▶ name, namespace, uid, resourceVersion, labels
//	item ───────▶ Lookup ──▶ one field; AppendPartial ──▶ the metadata alone
//
// The package knows the structure of lists, objects and watch events, but no resource: fields that
// no library knows pass through unchanged. It validates JSON only as far as needed to find the end
// of a value. Input that is not JSON causes an error or a truncated result, never a panic.
//
// Memory is bounded by the largest single object, see MaxValue.
package wire
