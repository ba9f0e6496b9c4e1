"""What is wrong with apps, functions, triggers and routes, in Fn's words."""

from __future__ import annotations

from shared_models.errors.kinds import Conflict, Invalid, NotFound

# -- apps ------------------------------------------------------------------------------------------


class AppNotFound(NotFound):
    text = "App not found"


class AppExists(Conflict):
    text = "App already exists"


class AppNameImmutable(Conflict):
    text = "Could not update - name is immutable"


class AppMissingName(Invalid):
    text = "Missing Name"


class AppNameTooLong(Invalid):
    text = "App name must be 255 characters or less"


class AppNameTooLongForV1(Invalid):
    text = "App name must be 30 characters or less"


class AppInvalidName(Invalid):
    text = "Invalid app name"


class AppMissingNameInPath(Invalid):
    text = "Missing app name"


class AppMissing(Invalid):
    text = "Missing new application"


class AppIDProvided(Invalid):
    text = "App ID cannot be supplied on create"


class AppIDMismatch(Invalid):
    text = "App ID in path does not match ID in body"


class AppInvalidShape(Invalid):
    text = "Invalid app shape"


class InvalidSyslogURL(Invalid):
    text = "invalid syslog url"


# -- annotations -----------------------------------------------------------------------------------


class InvalidAnnotationKey(Invalid):
    text = "Invalid annotation key, annotation keys must be non-empty ascii strings excluding whitespace"


class InvalidAnnotationKeyLength(Invalid):
    text = "Invalid annotation key length, annotation keys may not be larger than 128 bytes"


class InvalidAnnotationValue(Invalid):
    text = (
        "Invalid annotation value, annotation values may only be "
        "non-empty strings, numbers, objects, or arrays"
    )


class InvalidAnnotationValueLength(Invalid):
    text = (
        "Invalid annotation value length, annotation values may not be larger than 512 bytes "
        "when serialized as JSON"
    )


class TooManyAnnotations(Invalid):
    text = "Invalid annotation change, new key(s) exceed maximum permitted number of annotations keys (100)"


# -- fns -------------------------------------------------------------------------------------------


class FnNotFound(NotFound):
    text = "Fn not found"


class FnExists(Conflict):
    text = "Fn with specified name already exists"


class FnIDProvided(Invalid):
    text = "ID cannot be provided for Fn creation"


class FnIDMismatch(Invalid):
    text = "Fn ID in path does not match that in body"


class FnMissingName(Invalid):
    text = "Missing Fn name"


class FnNameTooLong(Invalid):
    text = "Fn name must be 255 characters or less"


class FnInvalidName(Invalid):
    text = "name must be a valid string"


class FnMissingAppID(Invalid):
    text = "Missing AppID on Fn"


class FnMissingImage(Invalid):
    text = "Missing image on Fn"


class InvalidMemory(Invalid):
    text = "memory value is out of range. It should be between 0 and 8192"


class InvalidTimeout(Invalid):
    text = "timeout value is out of range, must be between 0 and 300"


class InvalidIdleTimeout(Invalid):
    text = "idle_timeout value is out of range, must be between 0 and 3600"


# -- triggers --------------------------------------------------------------------------------------


class TriggerNotFound(NotFound):
    text = "Trigger not found"


class TriggerExists(Conflict):
    text = "Trigger already exists"


class TriggerSourceExists(Conflict):
    text = "Trigger with the same type and source exists on this app"


class TriggerIDProvided(Invalid):
    text = "ID cannot be provided for Trigger creation"


class TriggerIDMismatch(Invalid):
    text = "ID in path does not match ID in body"


class TriggerMissingName(Invalid):
    text = "Missing name on Trigger"


class TriggerNameTooLong(Invalid):
    text = "Trigger name must be 255 characters or less"


class TriggerInvalidName(Invalid):
    text = "Invalid name for Trigger"


class TriggerMissingAppID(Invalid):
    text = "Missing App ID on Trigger"


class TriggerMissingFnID(Invalid):
    text = "Missing Fn ID on Trigger"


class TriggerFnNotOwned(Invalid):
    text = "Invalid Fn ID - not owned by specified app"


class TriggerMissingSource(Invalid):
    text = "Missing Trigger Source"


class TriggerMissingSourcePrefix(Invalid):
    text = "Missing Trigger Source Prefix '/'"


class TriggerTypeUnknown(Invalid):
    text = "Trigger Type Not Supported"


class TriggerCreatedAtProvided(Invalid):
    text = "Trigger Created At Provided for Create"


class TriggerUpdatedAtProvided(Invalid):
    # The original says "ID" here; its words are kept.
    text = "Trigger ID Provided for Create"


# -- routes ----------------------------------------------------------------------------------------


class RouteNotFound(NotFound):
    text = "Route not found"


class RouteExists(Conflict):
    text = "Route already exists"


class RoutePathImmutable(Conflict):
    text = "Could not update - path is immutable"


class RouteMissing(Invalid):
    text = "Missing new route"


class RouteMissingPath(Invalid):
    text = "Missing route Path"


class RouteMissingImage(Invalid):
    text = "Missing route Image"


class RoutePathMalformed(Invalid):
    text = "Path malformed"


class RouteDynamicPath(Invalid):
    text = "Dynamic URL is not allowed"


class RouteInvalidPath(Invalid):
    text = "Invalid route path format"


class RoutePathTooLong(Invalid):
    text = "Route path must be 700 characters or less"


class RouteInvalidType(Invalid):
    text = "Invalid route Type"


class RouteInvalidFormat(Invalid):
    text = "Invalid route Format"


class RouteInvalidTimeout(Invalid):
    text = (
        "timeout value is out of range. Sync should be between 0 and 120, async should be between 0 and 3600"
    )


class RouteInvalidIdleTimeout(Invalid):
    text = "idle_timeout value is out of range. It should be between 0 and 3600"


class InvalidCPUs(Invalid):
    text = (
        "Cpus is invalid. Value should be either between [0.000 and 1024.000] or [0m and 1024000m] "
        "milliCPU units"
    )
