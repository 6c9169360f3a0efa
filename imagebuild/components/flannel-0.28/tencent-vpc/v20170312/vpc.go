// SPDX-License-Identifier: Apache-2.0

// Package v20170312 stands in for the client of Tencent Cloud's networks. It has the names that flanneld's backend
// tencent-vpc uses, and every request fails.
package v20170312

import "errors"

var errWithout = errors.New("tencent-vpc: flanneld is built without this backend")

// Client makes no request.
type Client struct{}

// Filter is never read.
type Filter struct {
	Name   *string
	Values []*string
}

// Route is never read.
type Route struct {
	RouteId              *uint64
	DestinationCidrBlock *string
	GatewayType          *string
	GatewayId            *string
	RouteType            *string
	Enabled              *bool
}

// RouteTable is never answered.
type RouteTable struct {
	RouteTableId *string
	RouteSet     []*Route
}

// DescribeRouteTablesRequest is never sent.
type DescribeRouteTablesRequest struct{ Filters []*Filter }

// DescribeRouteTablesResponse is never answered.
type DescribeRouteTablesResponse struct {
	Response *struct{ RouteTableSet []*RouteTable }
}

// RoutesRequest is never sent.
type RoutesRequest struct {
	RouteTableId *string
	Routes       []*Route
}

// NewClientWithSecretId fails.
func NewClientWithSecretId(string, string, string) (*Client, error) { return nil, errWithout }

// NewDescribeRouteTablesRequest makes a request that fails.
func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}

// NewCreateRoutesRequest makes a request that fails.
func NewCreateRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

// NewDeleteRoutesRequest makes a request that fails.
func NewDeleteRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

// DescribeRouteTables fails.
func (*Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errWithout
}

// CreateRoutes fails.
func (*Client) CreateRoutes(*RoutesRequest) (struct{}, error) { return struct{}{}, errWithout }

// DeleteRoutes fails.
func (*Client) DeleteRoutes(*RoutesRequest) (struct{}, error) { return struct{}{}, errWithout }
