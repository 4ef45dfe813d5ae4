"""Every HTTP call there is: one table, from which both the router and the OpenAPI document are made, so they can't differ."""

from __future__ import annotations

from typing import Any, Final

from agentstream.model import calls
from agentstream.model.orders import Run, WorkOrder, WorkOrderRequest
from agentstream.server import handlers
from agentstream.server.call import Route

PREFIX: Final = "/api/v1"


def routes() -> tuple[Route, ...]:
    """The calls below ``/api/v1``, in the order of PROTOCOL.md."""
    control: Any = {"method": "POST", "scope": "control", "problems": (404, 409)}
    return (
        Route(
            method="POST",
            path="/work-orders",
            handler=handlers.submit_work_order,
            scope="control",
            summary="Submit a work order. The same id and body again is answered by 200, another body by 409.",
            body=WorkOrderRequest,
            data=WorkOrder,
            status=(201, 200),
            traced=True,
            problems=(409,),
        ),
        Route(
            method="GET",
            path="/work-orders",
            handler=handlers.list_work_orders,
            scope="read",
            summary="Work orders, newest first.",
            query=calls.WorkOrderQuery,
            data=calls.WorkOrderList,
        ),
        Route(
            method="GET",
            path="/work-orders/{id}",
            handler=handlers.get_work_order,
            scope="read",
            summary="One work order.",
            data=WorkOrder,
            problems=(404,),
        ),
        Route(
            method="DELETE",
            path="/work-orders/{id}",
            handler=handlers.cancel_work_order,
            scope="control",
            summary="Cancel a work order; answered when that is done. One that has ended is answered as it is.",
            query=calls.CancelQuery,
            data=WorkOrder,
            problems=(404, 409),
        ),
        Route(
            path="/work-orders/{id}/runs",
            handler=handlers.start_further_run,
            summary="A further run of a work order that has ended.",
            body=calls.FurtherRun,
            body_required=False,
            data=WorkOrder,
            status=(201,),
            **control,
        ),
        Route(
            method="GET",
            path="/work-orders/{id}/events",
            handler=handlers.get_events,
            scope="read",
            summary="Journalled events; with Accept: text/event-stream a live stream that resumes by Last-Event-ID.",
            query=calls.EventQuery,
            data=calls.EventPage,
            streams=True,
            problems=(404,),
        ),
        Route(
            method="GET",
            path="/runs",
            handler=handlers.list_runs,
            scope="read",
            summary="The runs of a work order, by number.",
            query=calls.RunQuery,
            data=calls.RunList,
            problems=(404,),
        ),
        Route(
            method="GET",
            path="/runs/{id}",
            handler=handlers.get_run,
            scope="read",
            summary="One run; once it has ended, with its final result.",
            data=Run,
            problems=(404,),
        ),
        *(
            Route(
                method="GET",
                path=f"/runs/{{id}}/{name}",
                handler=handler,
                scope="read",
                summary=f"The raw {name} so far.",
                data=None,
                media="text/plain",
                problems=(404,),
            )
            for name, handler in (("stdout", handlers.get_stdout), ("stderr", handlers.get_stderr))
        ),
        Route(
            method="GET",
            path="/runs/{id}/tool-calls/{toolUseId}",
            handler=handlers.get_tool_call,
            scope="read",
            summary="One tool call and its result, whole.",
            data=calls.ToolCallDetail,
            problems=(404,),
        ),
        Route(
            path="/runs/{id}/messages",
            handler=handlers.send_message,
            summary="A follow-up to a run that takes input.",
            body=calls.Message,
            **control,
        ),
        Route(
            path="/runs/{id}/interrupt",
            handler=handlers.interrupt_run,
            summary="Stop the current turn, keep the run.",
            **control,
        ),
        Route(
            path="/runs/{id}/close-input",
            handler=handlers.close_input,
            summary="No more messages: the run ends after its turn.",
            **control,
        ),
        Route(
            path="/runs/{id}/cancel",
            handler=handlers.cancel_run,
            summary="Cancel a run, and with it its work order; answered when that is done.",
            body=calls.CancelRun,
            body_required=False,
            data=WorkOrder,
            **control,
        ),
        Route(
            method="GET",
            path="/approvals",
            handler=handlers.list_approvals,
            scope="read",
            summary="Permission requests that wait for an answer, oldest first.",
            data=calls.ApprovalList,
        ),
        Route(
            path="/approvals/{requestId}",
            handler=handlers.answer_approval,
            summary="Answer a permission request.",
            body=calls.ApprovalAnswer,
            **control,
        ),
        Route(
            method="GET",
            path="/agents",
            handler=handlers.list_agents,
            scope="read",
            summary="Agent types: whether each program is installed, its version, the login that would be used.",
            data=handlers.AgentList,
        ),
    )
