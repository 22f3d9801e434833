-- A gateway does not know push keys any more: "Homeservers must cease sending notification requests for these pushkeys and remove the
-- associated pushers."
create function notifications.reject_v1(of_app text, pushkeys text[]) returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    removed integer;
begin
    delete from writer.pushers p where p.app_id = of_app and p.pushkey = any (pushkeys);
    get diagnostics removed = row_count;
    return removed;
end
$$;
comment on function notifications.reject_v1(text, text[]) is 'Removes the pushers of push keys that their gateway rejected; returns how many.';
