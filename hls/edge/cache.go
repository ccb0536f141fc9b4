package edge

import (
	"container/list"
	"sync"
)

// cache keeps immutable objects, and forgets those that were not asked for longest.
type cache struct {
	limit int64

	mu    sync.Mutex // guards the fields below
	bytes int64
	byKey map[string]*list.Element
	order *list.List // of *object, newest first
}

// object is a file that never changes.
type object struct {
	key, contentType string
	body             []byte
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, byKey: map[string]*list.Element{}, order: list.New()}
}

func (c *cache) get(key string) (*object, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(el)
	return el.Value.(*object), true
}

// overhead is what an object costs besides its body, in bytes.
const overhead = 256

func (o *object) cost() int64 { return int64(len(o.body)+len(o.key)) + overhead }

// put keeps an object, unless it alone would take up an eighth of all.
func (c *cache) put(o *object) {
	if o.cost() > c.limit/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[o.key] != nil {
		return
	}
	c.byKey[o.key] = c.order.PushFront(o)
	for c.bytes += o.cost(); c.bytes > c.limit; {
		last := c.order.Back()
		gone := c.order.Remove(last).(*object)
		delete(c.byKey, gone.key)
		c.bytes -= gone.cost()
	}
}

func (c *cache) size() (objects int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byKey), c.bytes
}
