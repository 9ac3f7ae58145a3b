package httpapi

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"plane/system/backend"
	"plane/system/protocol"
)

// decodeBackends reads the parameters of a list of backends. Its errors name the
// parameter; one that it does not know is refused, as a filter that is not
// applied would show too much.
func decodeBackends(rawQuery string) (protocol.BackendsRequest, error) {
	req := protocol.BackendsRequest{Limit: protocol.SomeBackends}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return req, fmt.Errorf("query: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		if name == "status" {
			req.Statuses, err = decodeStatuses(values)
		} else if len(values) > 1 {
			err = errors.New("is given more than once")
		} else {
			err = decodeFilter(&req, name, values[0])
		}
		if err != nil {
			return req, fmt.Errorf("%s: %w", clip([]byte(name)), err)
		}
	}
	return req, nil
}

// decodeStatuses takes a parameter for each status, or one with commas.
func decodeStatuses(values []string) (statuses []backend.Status, err error) {
	for text := range strings.SplitSeq(strings.Join(values, ","), ",") {
		status, err := backend.ParseStatus(text)
		if err != nil {
			return nil, fmt.Errorf("no such backend status: %q", clip([]byte(text)))
		}
		statuses = append(statuses, status)
	}
	return statuses, nil
}

func decodeFilter(req *protocol.BackendsRequest, name, value string) (err error) {
	if value == "" && name != "namespace" {
		return errors.New("is empty; leave it out for any")
	}
	switch name {
	case "drone":
		req.Drone = value
	case "key":
		req.Key = value
	case "namespace":
		req.Namespace = &value
	case "after":
		req.After = value
	case "live":
		if value != "true" && value != "false" {
			return fmt.Errorf("want true or false, not %q", clip([]byte(value)))
		}
		req.Live = value == "true"
	case "limit":
		if req.Limit, err = strconv.Atoi(value); err != nil {
			return fmt.Errorf("want a whole number, not %q", clip([]byte(value)))
		}
	default:
		return errors.New("there is no such parameter; want status, live, drone, key, namespace, limit and after")
	}
	return nil
}
